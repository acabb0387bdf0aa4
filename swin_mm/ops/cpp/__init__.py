"""Operators in C++ for the CPU, compiled on first use where the machine has a compiler."""
