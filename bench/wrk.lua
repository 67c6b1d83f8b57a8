-- Makes wrk say what it saw as one line of JSON, the last of its output. Latencies are in microseconds.
done = function(summary, latency)
   local e = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "bytes": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}\n',
      summary.requests, summary.bytes, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      e.connect, e.read, e.write, e.timeout, e.status))
end
