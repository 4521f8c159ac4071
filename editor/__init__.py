"""The editor: a diffusion model that edits pictures by instructions, trained on the pipeline's pairs.

It follows Emu Edit (Sheynin et al. 2023): the input picture's latent beside the noise, the instruction by
cross-attention, and a learned vector of the task by both cross-attention and the time embedding. Nothing in
``pipeline`` or ``stages`` imports this package.
"""
