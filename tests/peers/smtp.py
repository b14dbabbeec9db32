"""A real mail server for tests: python smtp.py PORT MODE MAILS [CERT KEY [USER PASSWORD]]

MODE is plain, starttls (nothing is taken before it) or tls. Every mail is one JSON line of the file MAILS.
"""

import json
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


class Keep:
    def __init__(self, path):
        self.path = path

    async def handle_DATA(self, server, session, envelope):
        login = session.auth_data.login.decode() if session.auth_data else None
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "data": envelope.content.decode("utf8", errors="replace"),
            "tls": session.ssl is not None or server.transport.get_extra_info("ssl_object") is not None,
            "user": login,
        }
        with open(self.path, "a") as mails:
            mails.write(json.dumps(mail) + "\n")
        return "250 kept"


def main():
    port, mode, mails, *rest = sys.argv[1:]
    context = None
    if rest:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(rest[0], rest[1])
    options = {}
    if len(rest) > 2:
        user, password = rest[2].encode(), rest[3].encode()

        def authenticate(server, session, envelope, mechanism, data):
            right = (data.login, data.password) == (user, password)
            # What is not handled here the server answers itself, with 535.
            return AuthResult(success=right, handled=False, auth_data=data)

        options = {"authenticator": authenticate, "auth_required": True,
                   "auth_require_tls": mode == "starttls"}
    if mode == "starttls":
        options |= {"require_starttls": True, "tls_context": context}
    if mode == "tls":
        options |= {"ssl_context": context}
    Controller(Keep(mails), hostname="127.0.0.1", port=int(port), **options).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
