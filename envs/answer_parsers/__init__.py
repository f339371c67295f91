"""How an answer is read out of an utterance, one kind of answer a file. One reading for all."""
