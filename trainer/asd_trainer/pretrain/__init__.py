"""The pre-training stage: masks and the utterance-frame objective of EAT."""
