# SPDX-License-Identifier: LGPL-2.1-or-later
"""http3.py PATTERN: sessions of libcurl over HTTP/3 alone, each with one connection that it keeps, at addresses of that
pattern ("https://192.0.2.{}/"). A line "begin N" on standard input begins N more, "round S" sends a request on each and
waits S seconds for its answer. Both are answered with one line of JSON: how many are lost of all so far, and how many
each server answered of the others. Lost is a session without an answer, or whose answer is by another connection or of
another server than its first."""

import collections
import concurrent.futures
import io
import json
import sys

import pycurl  # pylint: disable=import-error

ADDRESSES = 200
AT_ONCE = 50  # a full queue of a socket is none of the broker's
SECONDS = 20  # for the first answer of a session
ONLY_HTTP3, IS_HTTP3 = 31, 30  # CURL_HTTP_VERSION_3ONLY, CURL_HTTP_VERSION_3


class Session:
    def __init__(self, url):
        self.server = None
        self.lost = False
        self.curl = pycurl.Curl()
        for option, value in ((pycurl.URL, url), (pycurl.HTTP_VERSION, ONLY_HTTP3), (pycurl.SSL_VERIFYPEER, 0),
                              (pycurl.SSL_VERIFYHOST, 0), (pycurl.NOSIGNAL, 1)):
            self.curl.setopt(option, value)

    def ask(self, seconds):
        if self.lost:
            return
        text = io.BytesIO()
        self.curl.setopt(pycurl.TIMEOUT, seconds)
        self.curl.setopt(pycurl.WRITEDATA, text)
        try:
            self.curl.perform()
        except pycurl.error as error:
            text = io.BytesIO(repr(error).encode())
        found = (self.curl.getinfo(pycurl.RESPONSE_CODE), self.curl.getinfo(pycurl.INFO_HTTP_VERSION),
                 self.curl.getinfo(pycurl.NUM_CONNECTS), text.getvalue().decode())
        wanted = (200, IS_HTTP3, 1 if self.server is None else 0, self.server or found[3])
        self.lost = found != wanted
        self.server = found[3]
        if self.lost:
            print("http3.py:", found, "instead of", wanted, file=sys.stderr)


def main(pattern):
    sessions = []
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for line in sys.stdin:
            word, number = line.split()
            if word == "begin":
                asked, seconds = [Session(pattern.format(1 + (len(sessions) + i) % ADDRESSES))
                                  for i in range(int(number))], SECONDS
                sessions.extend(asked)
            else:
                asked, seconds = sessions, int(number)
            list(pool.map(lambda one, seconds=seconds: one.ask(seconds), asked))
            served = collections.Counter(one.server.strip() for one in sessions if not one.lost)
            print(json.dumps({"lost": sum(one.lost for one in sessions), "served": served}), flush=True)


main(sys.argv[1])
