"""A LangGraph agent over OpenAI's client, both instrumented by OpenLLMetry."""

from exporting import provider
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent
from opentelemetry.instrumentation.langchain import LangchainInstrumentor
from opentelemetry.instrumentation.openai import OpenAIInstrumentor

OpenAIInstrumentor().instrument(tracer_provider=provider)
LangchainInstrumentor().instrument(tracer_provider=provider)


@tool
def look_up(order: int) -> str:
    """Return the state of an order."""
    return "shipped"


agent = create_react_agent(ChatOpenAI(model="gpt-4o"), [look_up], name="refunds")
agent.invoke({"messages": [("user", "where is order 7?")]})
provider.shutdown()
