"""Time of one import in a fresh interpreter, and what it loaded.

Both modules are imported from the environment fapilog is in; json comes after
the clock has stopped, or it would be loaded for free.
"""

import sys
from time import perf_counter_ns

HEAVY = ("grpc", "fastapi", "httpx")


def main() -> None:
    module = sys.argv[1]
    start = perf_counter_ns()
    __import__(module)
    elapsed = perf_counter_ns() - start
    import json

    loaded = [name for name in HEAVY if name in sys.modules]
    print(json.dumps({"import_ms": elapsed / 1e6, "heavy": loaded, "modules": len(sys.modules)}))


if __name__ == "__main__":
    main()
