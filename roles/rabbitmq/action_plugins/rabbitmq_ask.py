"""Asks the management API of the node on whose host a task runs: GET, and nothing else.

A module costs its host half a second of CPU for each question, and a command line is shown to everybody there. So a
small program goes to the host's Python through standard input, with the password in it, as Ansible's own modules do.
"""

from __future__ import annotations

import json
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

# Runs on the host. A status is that of the first answer that is not 200; 0 means that there was no answer.
PROGRAM = """
import base64, http.client, json

def ask(host, port, user, password, paths):
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    answers, status, reason = {}, 0, ""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        for path in paths:
            connection.request("GET", "/api/" + path, headers={"Authorization": "Basic " + login})
            reply = connection.getresponse()
            body, status = reply.read().decode(), reply.status
            if "json" in reply.getheader("Content-Type", ""):
                answers[path] = json.loads(body)
            if status != 200:
                reason = f"{path}: {status} {reply.reason} {body[:300]}"
                break
    except (OSError, http.client.HTTPException, ValueError) as error:
        status, reason = 0, str(error) or type(error).__name__
    return {"status": status, "reason": reason, "answers": answers}
"""
PAUSE = 0.5


class ActionModule(ActionBase):  # type: ignore[misc]
    """The action.

    Arguments:
        host, port: of the management API, as seen from the host of the task.
        login: "admin" asks as the user in rabbitmq_admin_user with rabbitmq_admin_password, and so on. The password is
            no argument because Ansible can be told to show those.
        path, paths: what to ask below /api/, one or several.
        until: a condition over `answer` (of one path) or `answers` (of several, by path), which is waited for; without
            it, status 200 is.
        within: seconds to wait. 0 asks once.
        give_up_on: statuses that no waiting will change; nobody becomes a user by waiting.

    Results: status, reason, answer or answers, and met: whether the condition came true. That it did not is no failure,
    so that the caller can say what was missing; that there is no answer, or none for this user, is one.
    """

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset({"host", "port", "login", "path", "paths", "until", "within", "give_up_on"})

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask, until the answer is what is waited for."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self._task.args
        paths = [args["path"]] if "path" in args else args["paths"]
        deadline = time.monotonic() + float(args.get("within", 0))
        while True:
            found = self._ask(args["host"], int(args["port"]), args["login"], paths)
            if "path" in args:
                found["answer"] = found.pop("answers").get(args["path"])
            found["met"] = found["status"] == 200 and self._holds(args.get("until"), found)
            given_up = found["status"] in args.get("give_up_on", (401, 403))
            if found["met"] or given_up or time.monotonic() >= deadline:
                break
            # Between two questions, up to the deadline; the API tells nobody when an answer changes.
            time.sleep(PAUSE)
        result |= found
        if found["status"] != 200:
            result |= {"failed": True, "msg": self._failure(args, found)}
        return result | {"changed": False}

    def _ask(self, host: str, port: int, login: str, paths: list[str]) -> dict[str, Any]:
        user, password = (
            self._templar.evaluate_expression(trust_as_template(f"rabbitmq_{login}_{part}"))
            for part in ("user", "password")
        )
        question = {"host": host, "port": port, "user": user, "password": password, "paths": list(paths)}
        program = f"{PROGRAM}\nprint(json.dumps(ask(**json.loads({json.dumps(question)!r}))))\n"
        ran = self._low_level_execute_command("python3 -", in_data=program.encode())
        if ran["rc"] != 0:
            # What Python says of a program that failed could quote it.
            raise AnsibleActionFail(f"python3 on the host of this task ended with code {ran['rc']}")
        found: dict[str, Any] = json.loads(ran["stdout"].strip().splitlines()[-1])
        return found

    def _holds(self, condition: str | None, found: dict[str, Any]) -> bool:
        if condition is None:
            return True
        seen = {name: found[name] for name in ("answer", "answers") if name in found}
        return bool(self._templar.evaluate_expression(condition, local_variables=seen))

    @staticmethod
    def _failure(args: dict[str, Any], found: dict[str, Any]) -> str:
        api = f"http://{args['host']}:{args['port']}/api"
        if found["status"] == 401:
            return (
                f"{api} refuses the login of rabbitmq_{args['login']}_user ({found['reason']}). "
                "Are the passwords of the inventory (rabbitmq_secrets_dir) those of this cluster? If they are new on "
                "purpose, playbooks/objects.yml makes the users what the inventory says."
            )
        return f"{api} did not answer as it should within {args.get('within', 0)} s: {found['reason']}"
