"""From a trained network and patches to a submission CSV of `id,label`."""
