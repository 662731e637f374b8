"""Asks an LLM for rows at controlled levels of diversity: dials, prompts, client, ledger, pools.

Names are imported from their files, since this room is not loaded whole: the client alone takes half of the memory.
"""
