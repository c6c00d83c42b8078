"""Models of Flux.jl: built from files, and as vectors."""
