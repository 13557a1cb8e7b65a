"""Trainers: OREO and sequence losses on `transformers.Trainer`, the others on TRL's stable ones."""
