"""Implement methods from papers, each in a file of at most 40 lines.

Each file contains a network, its loss or objective, and `make_run`. Copy one and change it, or train it unchanged:

    from nnjax.recipes import vae
    result = train.fit(vae.make_run(), data.load("digits").train, epochs=10)
"""
