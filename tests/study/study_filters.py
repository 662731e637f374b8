"""A filter as a user writes one."""


def no_question(corpus):
    return ["holds the letter z" if "z" in text.lower() else None for text in corpus.texts]
