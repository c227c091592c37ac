"""The variational autoencoder of quasar spectra, its latent density and its anomaly scores.

Torch, numpy and safetensors only; nothing here reads a survey, and only ``models.files`` touches a disk.

Shape legend of the package: B spectra · L 7,781 native pixels (observed, vacuum Å) · O 2,180 log-wavelength
bins of the observed range · R bins of the rest-frame grid · C blocks of 16 rest-frame bins · D latent
dimensions · W box widths.
"""
