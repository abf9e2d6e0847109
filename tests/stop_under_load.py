"""Stops a container while it is called, and counts the calls that were lost.

    python3 tests/stop_under_load.py URL CONTAINER

A call is lost when the gateway took it and no whole answer came. That nobody listens any more once the gateway has
stopped is no loss: a balancer has been told by then. The engine's own proxy on a published port takes connections for a
container that is gone, and resets them; the gateway's log tells those apart, since it has one event for each call it took.
"""
import http.client
import json
import subprocess
import sys
import threading
import time
import urllib.parse

url, container = sys.argv[1:]
parts = urllib.parse.urlsplit(url)
headers = {"X-Api-Key": "cs_demo_key_for_the_emulator_only"}
answered, lost, stopping = [0], [], threading.Event()


def exchanges():
    """The status of each call that the gateway took."""
    log = subprocess.run(["docker", "logs", container], check=True, capture_output=True, text=True).stdout
    events = [json.loads(line) for line in log.splitlines()]
    return [event["status"] for event in events if event["message"] == "exchange"]


def call_until_stopped(delay_ms):
    target = f"{parts.path}?emulate.delay={delay_ms}"
    while True:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        try:
            connection.connect()
        except OSError:
            return
        calls = 0
        try:
            while True:
                connection.request("GET", target, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or not body:
                    lost.append(f"status {answer.status}")
                answered[0] += 1
                calls += 1
                if answer.will_close:
                    break
        except (OSError, http.client.HTTPException) as error:
            if calls > 0 or not stopping.is_set():
                lost.append(repr(error))
            return
        finally:
            connection.close()


earlier = len(exchanges())
threads = [threading.Thread(target=call_until_stopped, args=(delay,)) for delay in [60] * 8 + [400] * 8]
for thread in threads:
    thread.start()
time.sleep(2)
before = answered[0]
began = time.monotonic()
stopping.set()
subprocess.run(["docker", "stop", "--time", "40", container], check=True, stdout=subprocess.DEVNULL)
took = time.monotonic() - began
for thread in threads:
    thread.join()
code = subprocess.run(["docker", "inspect", "--format", "{{.State.ExitCode}}", container], check=True, capture_output=True, text=True).stdout.strip()
taken = exchanges()[earlier:]
lost.extend(f"status {status} in the log" for status in taken if status != 200)
if len(taken) != answered[0]:
    lost.append(f"the gateway took {len(taken)} calls")
print(f"{answered[0]} calls answered, {answered[0] - before} of them while stopping, {len(lost)} lost; stopped in {took:.1f} s with exit code {code}")
for what in lost[:5]:
    print("  lost:", what)
sys.exit(1 if lost or code != "0" or answered[0] == 0 else 0)
