-- A POST of the file that $BENCH_BODY names; at the end one line of JSON for compare.py.

local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer not-a-key"
file:close()

function done(summary, latency)
    local failed = summary.errors
    print(string.format(
        '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "failed": %d}',
        summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
