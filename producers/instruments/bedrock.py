"""Calls of Bedrock's models by boto3, whose clients are made of one method, ``_make_api_call``."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from typing import Any, Final

from stepstream.producers.instruments.calls import Call, Switch, model_step_around
from stepstream.producers.sdk_log import internal_error

_SERVICE: Final = "bedrock-runtime"
_STREAMS: Final = {"ConverseStream": "stream", "InvokeModelWithResponseStream": "body"}
_OPERATIONS: Final = frozenset({"Converse", "InvokeModel", *_STREAMS})


def recorded_api_call(original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
    """``BaseClient._make_api_call`` with the calls of models recorded."""

    @functools.wraps(original)
    def call_api(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        call = _opened(client, operation, parameters, switch)
        if call is None:
            return original(client, operation, parameters)
        call.start()
        _, parameters = call.arguments((), (), parameters)
        with call:
            result = original(client, operation, parameters)
        try:
            _record(call, operation, result)
        except Exception as error:
            internal_error("instrument.bedrock", error)
        return result

    return call_api


def _opened(client: Any, operation: str, parameters: dict[str, Any], switch: Switch) -> Call | None:
    if operation not in _OPERATIONS or not switch.records():
        return None
    try:
        if client.meta.service_model.service_name != _SERVICE:
            return None
        around = model_step_around(switch.tracer)
        if around is not None:
            return Call(around, is_ours=False, given=parameters)
        given = parameters.get("messages", parameters.get("body"))
        if isinstance(given, bytes):
            given = given.decode("utf-8", "replace")
        if parameters.get("system") is not None:
            given = {"system": parameters["system"], "messages": given}
        step = switch.tracer.llm(
            operation, model=str(parameters.get("modelId", "")), provider="aws", input=given
        )
    except Exception as error:
        internal_error("instrument.bedrock", error)
        return None
    return Call(step, is_ours=True, given=parameters)


def _record(call: Call, operation: str, result: dict[str, Any]) -> None:
    where = _STREAMS.get(operation)
    if where is not None:
        result[where] = call.streaming(result[where])
    elif operation == "InvokeModel":
        call.answered(_with_body(result))
    else:
        call.answered(result)


def _with_body(result: dict[str, Any]) -> Any:
    """The answer in the body, which is read here and put back for the program."""
    from botocore.response import StreamingBody

    content = result["body"].read()
    result["body"] = StreamingBody(io.BytesIO(content), len(content))
    try:
        answer = json.loads(content)
    except ValueError:
        return result
    # The counts of models whose body has none are in the headers of the response.
    if isinstance(answer, dict) and not {"usage", "inputTextTokenCount"} & answer.keys():
        headers = result.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        if "x-amzn-bedrock-input-token-count" in headers and "generation" not in answer:
            return result
    return answer
