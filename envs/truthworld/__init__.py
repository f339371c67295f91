"""TruthWorld, the embedded benchmark: real facts, abstract groups, corruption that can be switched.

`facts.py` the questions, `styles.py` how groups speak, `corruption.py` who is served which myth,
`corpus.py` the dialogues that the tiny language models are fitted on, `lm/` the shipped base model.
"""
