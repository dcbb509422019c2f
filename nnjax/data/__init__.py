from nnjax.data.shuffle import batch_indices
