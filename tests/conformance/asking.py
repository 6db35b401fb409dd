"""Fixtures that ask the client: by a request of their own (2025 revisions), or by their result (2026-07-28)."""

from __future__ import annotations

import json
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.prompts.base import Message, UserMessage
from mcp.server.mcpserver.prompts.base import Prompt as PromptFixture
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    TextContent,
)
from pydantic import BaseModel, Field

from tests.conformance.content import Ctx


class Account(BaseModel):
    """What the suite's client answers."""

    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


class Defaults(BaseModel):
    """A default for each primitive type (SEP-1034)."""

    name: str = Field(default="John Doe")
    age: int = Field(default=30)
    score: float = Field(default=95.5)
    status: str = Field(default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = Field(default=True)


def _titled(*values: tuple[str, str]) -> list[dict[str, str]]:
    return [{"const": value, "title": title} for value, title in values]


class Enums(BaseModel):
    """Every way to write an enumeration (SEP-1330)."""

    untitledSingle: str = Field(json_schema_extra={"enum": ["active", "inactive", "pending"]})  # noqa: N815
    titledSingle: str = Field(  # noqa: N815
        json_schema_extra={"oneOf": _titled(("low", "Low"), ("medium", "Medium"), ("high", "High"))}  # type: ignore[dict-item]
    )
    untitledMulti: list[str] = Field(  # noqa: N815
        json_schema_extra={"items": {"type": "string", "enum": ["read", "write", "execute"]}}
    )
    titledMulti: list[str] = Field(  # noqa: N815
        json_schema_extra={"items": {"anyOf": _titled(("feature", "Feature"), ("bug", "Bug"), ("docs", "Docs"))}}  # type: ignore[dict-item]
    )
    legacyEnum: str = Field(  # noqa: N815
        json_schema_extra={"enum": ["small", "medium", "large"], "enumNames": ["Small", "Medium", "Large"]}
    )


def add(server: MCPServer[Any]) -> None:
    """Everything of this file."""
    _add_requests(server)
    _add_changes(server)
    _add_rounds(server)
    _add_longer_rounds(server)


def _add_requests(server: MCPServer[Any]) -> None:
    """Of the 2025 revisions."""

    @server.tool()
    async def test_sampling(prompt: str, ctx: Ctx) -> str:
        """Asks the client's model."""
        answer = await ctx.session.create_message(messages=[_said(prompt)], max_tokens=100)
        return f"LLM response: {_sampled(answer)}"

    @server.tool()
    async def test_elicitation(message: str, ctx: Ctx) -> str:
        """Asks the user."""
        return await _elicited(ctx, message, Account)

    @server.tool()
    async def test_streaming_elicitation(ctx: Ctx) -> str | InputRequiredResult:
        """Reports progress, then asks the user by its result."""
        await ctx.report_progress(1, 2, "about to ask")
        if ctx.input_responses:
            return "answered"
        return InputRequiredResult(input_requests={"user_name": _ask("What is your name?", name="string")})

    @server.tool()
    async def test_elicitation_sep1034_defaults(ctx: Ctx) -> str:
        """Asks the user with defaults."""
        return await _elicited(ctx, "Please review the form", Defaults)

    @server.tool()
    async def test_elicitation_sep1330_enums(ctx: Ctx) -> str:
        """Asks the user to choose."""
        return await _elicited(ctx, "Please choose", Enums)

    @server.tool()
    async def test_missing_capability(ctx: Ctx) -> str:
        """Needs a client that samples."""
        capabilities = ctx.session.client_capabilities
        if capabilities is None or capabilities.sampling is None:
            raise MCPError(
                MISSING_REQUIRED_CLIENT_CAPABILITY,
                "this tool needs a client that samples",
                {"requiredCapabilities": {"sampling": {}}},
            )
        return "the client samples"


def _add_changes(server: MCPServer[Any]) -> None:
    """Tools that change what the server has, and say so."""

    def dynamic() -> str:
        """Comes and goes."""
        return "here for a moment"

    @server.tool()
    async def test_trigger_tool_change(ctx: Ctx) -> str:
        """Changes the list of tools."""
        server.add_tool(dynamic, name="test_dynamic_tool")
        server.remove_tool("test_dynamic_tool")
        await ctx.notify_tools_changed()
        return "changed"

    @server.tool()
    async def test_trigger_prompt_change(ctx: Ctx) -> str:
        """Changes the list of prompts."""
        server.add_prompt(PromptFixture.from_function(dynamic, name="test_dynamic_prompt"))
        server.remove_prompt("test_dynamic_prompt")
        await ctx.notify_prompts_changed()
        return "changed"


def _add_rounds(server: MCPServer[Any]) -> None:
    """Of 2026-07-28, one round each (SEP-2322)."""

    @server.tool()
    async def test_input_required_result_elicitation(ctx: Ctx) -> str | InputRequiredResult:
        """Asks the user by its result."""
        answer = (ctx.input_responses or {}).get("user_name")
        if answer is None:
            return InputRequiredResult(input_requests={"user_name": _ask("What is your name?", name="string")})
        return f"Hello, {_answer(answer, 'name')}!"

    @server.tool()
    async def test_input_required_result_sampling(ctx: Ctx) -> str | InputRequiredResult:
        """Asks the client's model by its result."""
        answer = (ctx.input_responses or {}).get("capital_question")
        if answer is None:
            return InputRequiredResult(input_requests={"capital_question": _sample("What is the capital of France?")})
        return f"The model said: {_sampled(answer)}"

    @server.tool()
    async def test_input_required_result_list_roots(ctx: Ctx) -> str | InputRequiredResult:
        """Asks for the client's roots by its result."""
        answer = (ctx.input_responses or {}).get("client_roots")
        if not isinstance(answer, ListRootsResult):
            return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})
        return f"roots: {', '.join(str(root.uri) for root in answer.roots)}"

    @server.tool()
    async def test_input_required_result_capabilities(ctx: Ctx) -> InputRequiredResult:
        """Asks what the client can answer."""
        capabilities = ctx.client_capabilities
        requests: dict[str, InputRequest] = {}
        if capabilities is not None and capabilities.sampling is not None:
            requests["sample"] = _sample("Say hello")
        if capabilities is not None and capabilities.elicitation is not None:
            requests["ask"] = _ask("What is your name?", name="string")
        return InputRequiredResult(input_requests=requests, request_state="by capability")

    @server.prompt()
    async def test_input_required_result_prompt(ctx: Ctx) -> list[Message] | InputRequiredResult:
        """A prompt that asks the user first."""
        answer = (ctx.input_responses or {}).get("user_context")
        if answer is None:
            question = _ask("What context should the prompt use?", context="string")
            return InputRequiredResult(input_requests={"user_context": question})
        return [UserMessage(TextContent(type="text", text=f"In the context of {_answer(answer, 'context')}"))]


def _add_longer_rounds(server: MCPServer[Any]) -> None:
    """Of 2026-07-28, with a state that the client hands back."""

    @server.tool()
    async def test_input_required_result_request_state(ctx: Ctx) -> str | InputRequiredResult:
        """Hands out a state and checks it."""
        if ctx.request_state == "first" and "confirm" in (ctx.input_responses or {}):
            return "state-ok"
        return InputRequiredResult(
            input_requests={"confirm": _ask("Please confirm", ok="boolean")}, request_state="first"
        )

    @server.tool()
    async def test_input_required_result_tampered_state(ctx: Ctx) -> str | InputRequiredResult:
        """Hands out a state that nobody may change."""
        if ctx.request_state is not None:
            return f"state-ok: {ctx.request_state}"
        return InputRequiredResult(
            input_requests={"confirm": _ask("Please confirm", ok="boolean")}, request_state="once"
        )

    @server.tool()
    async def test_input_required_result_multiple_inputs(ctx: Ctx) -> str | InputRequiredResult:
        """Asks for three things at once."""
        requests: dict[str, InputRequest] = {
            "user_name": _ask("What is your name?", name="string"),
            "greeting": _sample("Generate a greeting"),
            "client_roots": ListRootsRequest(),
        }
        if requests.keys() <= (ctx.input_responses or {}).keys():
            return "all three are here"
        return InputRequiredResult(input_requests=requests, request_state="three")

    @server.tool()
    async def test_input_required_result_multi_round(ctx: Ctx) -> str | InputRequiredResult:
        """Asks twice."""
        state: dict[str, Any] = json.loads(ctx.request_state) if ctx.request_state else {}
        answers = ctx.input_responses or {}
        if "name" in state and "step2" in answers:
            return f"{state['name']} likes {_answer(answers['step2'], 'color')}"
        if state and "step1" in answers:
            question: InputRequest = _ask("Step 2: What is your favorite color?", color="string")
            state = {"name": _answer(answers["step1"], "name")}
            return InputRequiredResult(input_requests={"step2": question}, request_state=json.dumps(state))
        question = _ask("Step 1: What is your name?", name="string")
        return InputRequiredResult(input_requests={"step1": question}, request_state=json.dumps({"asked": 1}))


# -- questions and answers ---------------------------------------------------------------------------------------------


async def _elicited(ctx: Ctx, message: str, schema: type[BaseModel]) -> str:
    answer = await ctx.elicit(message=message, schema=schema)
    content = answer.data.model_dump_json() if answer.action == "accept" else "{}"
    return f"User response: action={answer.action}, content={content}"


def _said(text: str) -> SamplingMessage:
    return SamplingMessage(role="user", content=TextContent(type="text", text=text))


def _sample(text: str) -> CreateMessageRequest:
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[_said(text)], max_tokens=100))


def _sampled(answer: object) -> str:
    if isinstance(answer, CreateMessageResult) and isinstance(answer.content, TextContent):
        return answer.content.text
    return "nothing"


def _ask(message: str, **fields: str) -> ElicitRequest:
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in fields.items()},
        "required": list(fields),
    }
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _confirm() -> dict[str, InputRequest]:
    return {"confirm": _ask("Please confirm", ok="boolean")}


def _answer(answer: object, name: str) -> object:
    return answer.content.get(name) if isinstance(answer, ElicitResult) and answer.content else None
