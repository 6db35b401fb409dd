"""What we lean on in `mcp==2.3.0`. Its dispatch layer is provisional: a new version must not change it unnoticed."""

from __future__ import annotations

import inspect
import subprocess
import sys

import mcp.server.auth.middleware.auth_context
import mcp.server.connection
import mcp.server.lowlevel.server
import mcp.server.mcpserver
import mcp.server.runner
import mcp.server.subscriptions
import mcp.shared.dispatcher
import mcp.shared.inbound
import mcp.shared.jsonrpc_dispatcher
import mcp.shared.message
import mcp.shared.subscriptions
import mcp.shared.transport_context
import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.request_state import AESGCMRequestStateCodec, RequestStateBoundary


def parameters(function: object) -> str:
    """Names and kinds, without annotations."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (mcp.server.runner.ServerRunner, "(server, connection, lifespan_state, *, init_options=None)"),
        (mcp.server.runner.ServerRunner._on_request, "(self, dctx, method, params)"),
        (mcp.server.runner.ServerRunner._on_notify, "(self, dctx, method, params)"),
        (mcp.server.runner.aclose_shielded, "(connection)"),
        (mcp.server.runner.modern_error_data, "(exc)"),
        (
            mcp.server.connection.Connection.from_envelope,
            "(protocol_version, client_info, client_capabilities, *, outbound=",
        ),
        (mcp.server.connection.Connection.for_loop, "(outbound, *, session_id=None, protocol_version_hint=None)"),
        (mcp.shared.inbound.classify_inbound_request, "(body, *, headers=None, supported_modern_versions="),
        (mcp.shared.inbound.validate_mcp_param_headers, "(input_schema, arguments, headers)"),
        (mcp.shared.inbound.find_duplicated_routing_header, "(headers)"),
        (mcp.shared.inbound.unsupported_protocol_version_rejection, "(requested, supported_modern_versions="),
        (mcp.shared.jsonrpc_dispatcher.progress_token_from_params, "(params)"),
        (mcp.shared.subscriptions.event_matches, "(honored, uris, event)"),
        (mcp.shared.subscriptions.event_to_notification, "(event, meta)"),
        (mcp.server.lowlevel.server.Server.add_request_handler, "(self, method, params_type, handler)"),
        (mcp.server.lowlevel.server.Server.get_request_handler, "(self, method)"),
    ],
)
def test_the_functions_have_the_signatures_we_call_them_with(function: object, expected: str) -> None:
    assert parameters(function).startswith(expected)


def test_the_attributes_that_are_not_public_are_there() -> None:
    server = MCPServer("pin")

    @server.tool(meta={"a": 1})
    def tool() -> str:
        return ""

    @server.resource("pin://{name}", meta={"b": 2})
    def resource(name: str) -> str:
        return name

    connection = mcp.server.connection.Connection.from_envelope("2026-07-28", None, {})
    assert not connection.exit_stack._exit_callbacks  # type: ignore[attr-defined]
    connection.exit_stack.callback(print)
    assert connection.exit_stack._exit_callbacks  # type: ignore[attr-defined]
    (boundary,) = [part for part in server.middleware if isinstance(part, RequestStateBoundary)]
    assert boundary._audience == "pin"
    assert isinstance(boundary._security.codec, AESGCMRequestStateCodec)
    assert len(boundary._security.codec._ring) == 1
    low = server._lowlevel_server
    assert low.get_tool_input_schema is not None
    assert low.get_tool_input_schema("tool") is not None
    assert callable(low.lifespan)
    assert server._subscriptions is not None
    found = server._tool_manager.get_tool("tool")
    assert found is not None
    assert found.meta == {"a": 1}
    assert server._prompt_manager.get_prompt("none") is None
    (template,) = server._resource_manager._templates.values()
    assert template.meta == {"b": 2}
    assert template.matches("pin://x") == {"name": "x"}
    assert server._resource_manager._resources == {}


def test_the_dispatch_context_has_no_member_that_ours_lack() -> None:
    """The kernel's view of a request: our classes have it by shape, so a new member must be seen."""
    members = {name for name in dir(mcp.shared.dispatcher.DispatchContext) if not name.startswith("_")}
    assert members == {
        "can_send_request",
        "cancel_requested",
        "message_metadata",
        "notify",
        "progress",
        "request_id",
        "send_raw_request",
        "transport",
    }


def test_the_package_without_the_extra_does_not_import_the_sdk() -> None:
    code = "import sys, tornado_sse_auth; sys.exit('mcp' in sys.modules or 'mcp_types' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
