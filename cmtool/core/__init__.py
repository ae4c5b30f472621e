"""Tensors in, tensors out: noise, processes, denoisers, solvers, samplers, editing operators."""
