"""The fine-tuning and distillation stages: classes of normal sound, augmentation, batches."""
