-- SPDX-License-Identifier: Apache-2.0
-- The last line of wrk's output: its figures in full precision, as JSON. All errors are one number.
done = function(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '{"requests": %d, "bytes": %d, "duration_us": %d, ' ..
      '"p50_us": %d, "p99_us": %d, "errors": %d}\n',
      summary.requests, summary.bytes, summary.duration,
      latency:percentile(50), latency:percentile(99),
      e.connect + e.read + e.write + e.status + e.timeout))
end
