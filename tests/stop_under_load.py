"""Stops a container while it is called, and counts the calls that were lost.

    python3 tests/stop_under_load.py URL CONTAINER

A call is lost when its connection was taken and no whole answer came. That nobody listens any more once the container
has stopped is no loss; a balancer has been told by then.
"""
import http.client
import subprocess
import sys
import threading
import time
import urllib.parse

url, container = sys.argv[1:]
parts = urllib.parse.urlsplit(url)
headers = {"X-Api-Key": "cs_demo_key_for_the_emulator_only"}
answered, lost, stopped = [0], [], threading.Event()


def call_until_stopped(delay_ms):
    target = f"{parts.path}?emulate.delay={delay_ms}"
    while True:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        try:
            connection.connect()
        except OSError:
            return
        try:
            while True:
                connection.request("GET", target, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or not body:
                    lost.append(f"status {answer.status}")
                answered[0] += 1
                if answer.will_close:
                    break
        except (OSError, http.client.HTTPException) as error:
            # The port is published by a proxy of the engine's, which takes connections for a container that is gone.
            if not stopped.is_set():
                lost.append(repr(error))
            return
        finally:
            connection.close()


threads = [threading.Thread(target=call_until_stopped, args=(delay,)) for delay in [60] * 8 + [400] * 8]
for thread in threads:
    thread.start()
time.sleep(2)
before = answered[0]
began = time.monotonic()
watch = threading.Thread(target=lambda: (subprocess.run(["docker", "wait", container], stdout=subprocess.DEVNULL, check=False), stopped.set()))
watch.start()
subprocess.run(["docker", "stop", "--time", "40", container], check=True, stdout=subprocess.DEVNULL)
took = time.monotonic() - began
stopped.set()
for thread in threads:
    thread.join()
code = subprocess.run(["docker", "inspect", "--format", "{{.State.ExitCode}}", container], check=True, capture_output=True, text=True).stdout.strip()
print(f"{answered[0]} calls answered, {answered[0] - before} of them while stopping, {len(lost)} lost; stopped in {took:.1f} s with exit code {code}")
for what in lost[:5]:
    print("  lost:", what)
sys.exit(1 if lost or code != "0" or answered[0] == 0 else 0)
