"""Branching LangGraph apps with a planted fault, and an optimizer that reads nothing but its prompt."""
