"""LangChain sequences as nodes: prompt | model | parser, partial variables, itemgetter, RunnableLambda.

A template reads its own variables and nothing else of the state.
"""

from operator import itemgetter
from typing import Any, TypedDict

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langgraph.graph import END, START, StateGraph

from tests.agents.langgraph.apps.models import model


class State(TypedDict, total=False):
    question: str
    audience: str
    answer: str
    headline: str
    keywords: str
    page: str


answer_prompt = ChatPromptTemplate.from_messages(
    [("system", "You write for {audience}. {manner}"), ("human", "Please explain this: {question}")]
).partial(manner="Use no foreign words at all.")
answer_chain: Any = answer_prompt | model | StrOutputParser() | (lambda text: {"answer": text})

headline_chain: Any = (
    {"body": itemgetter("answer")}
    | PromptTemplate.from_template("Write a headline of six words over: {body}")
    | model.bind(temperature=0.7)
    | StrOutputParser()
)
keywords_chain: Any = (
    ChatPromptTemplate.from_template("Give three keywords for: {question}") | model | StrOutputParser()
)


def put_together(state: State) -> dict[str, Any]:
    text = model.invoke([("system", "Lay out the page from its parts."), ("human", state["answer"])]).content
    return {"page": f"{state['headline']} | {state['keywords']} | {text}"}


def build() -> Any:
    builder = StateGraph(State)
    builder.add_node("answer", answer_chain)
    builder.add_node("extras", RunnableParallel(headline=headline_chain, keywords=keywords_chain))
    builder.add_node("page", RunnableLambda(put_together))
    builder.add_edge(START, "answer")
    builder.add_edge("answer", "extras")
    builder.add_edge("extras", "page")
    builder.add_edge("page", END)
    return builder.compile()


PARALLEL = True
INPUT = {"question": "Why is the sky blue", "audience": "young readers"}
EDGES = {
    ("__start__", "answer", "question"),
    ("__start__", "answer", "audience"),
    ("answer", "extras", "answer"),
    ("__start__", "extras", "question"),
    ("answer", "page", "answer"),
    ("extras", "page", "headline"),
    ("extras", "page", "keywords"),
    ("__start__", "__end__", "question"),
    ("__start__", "__end__", "audience"),
    ("answer", "__end__", "answer"),
    ("extras", "__end__", "headline"),
    ("extras", "__end__", "keywords"),
    ("page", "__end__", "page"),
}
PROMPTS = {
    ("answer", "You write for {audience}. {manner}"),
    ("answer", "Please explain this: {question}"),
    ("answer", "Use no foreign words at all."),
    ("extras", "Write a headline of six words over: {body}"),
    ("extras", "Give three keywords for: {question}"),
    ("page", "Lay out the page from its parts."),
}
OTHER = {"{state['headline']} | {state['keywords']} | {text}"}
