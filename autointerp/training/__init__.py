"""Text and a subject in, sparse autoencoders out: the training recipe of Gao et al. 2024.

`trainer.train_autoencoders` trains several dictionaries at once from one stream of activations;
`export.write_trained` writes each of them in one of the on-disk formats. Stands on top of `sampling`.
"""
