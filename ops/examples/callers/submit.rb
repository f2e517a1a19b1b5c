# Submits a job once only, waits for its end and prints its result. Needs Ruby 3.0 or newer and no gem.
#
# How to run it, beside `python3 -m ops up`:
#
#     DJPS_URL=http://127.0.0.1:8000 ruby ops/examples/callers/submit.rb '{"task": "noop"}' order-17
#
# The second word is the idempotency key. Make it of your own record, such as the order's number, so that it is the same
# when your program starts again.

require "json"
require "net/http"

API = URI(ENV.fetch("DJPS_URL", "http://127.0.0.1:8000"))
# Seconds that a call may be silent, and seconds that the API is asked to wait for the job's end.
TIMEOUT = Float(ENV.fetch("DJPS_TIMEOUT", "10"))
WAIT = 20
# Seconds between tries, and how long a job may take in all.
PAUSES = [0.5, 1, 2].freeze
PATIENCE = 600
# Answers after which the same request may succeed.
PASSING = [409, 429, 500, 502, 503, 504].freeze
# No answer, half of one, or one that is not JSON: the request may have been carried out.
LOST = [SystemCallError, SocketError, IOError, Timeout::Error, Net::ProtocolError, JSON::ParserError].freeze

class GaveUp < StandardError; end

# Makes one call; returns the answer and the JSON that came.
def call(request, timeout)
  limits = { open_timeout: timeout, read_timeout: timeout, write_timeout: timeout }
  Net::HTTP.start(API.host, API.port, use_ssl: API.scheme == "https", **limits) do |http|
    answer = http.request(request)
    [answer, JSON.parse(answer.body)]
  end
end

# Makes a call until it is answered; it must be one that may be sent again: with a key, or a GET.
def ask(request, timeout = TIMEOUT)
  said = nil
  [*PAUSES, nil].each do |pause|
    after = 0
    begin
      answer, body = call(request, timeout)
      return body if answer.is_a?(Net::HTTPSuccess)

      said = "#{answer.code} #{body['title']}: #{body['detail']}"
      break unless PASSING.include?(answer.code.to_i)

      after = answer["Retry-After"].to_i
    rescue *LOST => e
      said = "no answer: #{e.message}"
    end
    sleep([pause, [after, 60].min].max) if pause
  end
  raise GaveUp, said
end

# Submits a job. The same body under the same key makes one job, however often it is sent.
def submit(payload, key)
  request = Net::HTTP::Post.new("/jobs", "Content-Type" => "application/json", "Idempotency-Key" => key)
  request.body = JSON.generate(payload: payload)
  ask(request)
end

# Waits until a job is final; returns its result.
def wait(job)
  stop = Process.clock_gettime(Process::CLOCK_MONOTONIC) + PATIENCE
  while %w[queued processing].include?(job["status"]) && Process.clock_gettime(Process::CLOCK_MONOTONIC) < stop
    job = ask(Net::HTTP::Get.new("/jobs/#{job['id']}?wait=#{WAIT}"), WAIT + TIMEOUT)
  end
  raise GaveUp, "job #{job['id']} is #{job['status']}: #{job['last_error']}" if job["status"] != "completed"

  job["result"]
end

begin
  puts JSON.generate(wait(submit(JSON.parse(ARGV[0]), ARGV[1])))
rescue GaveUp => e
  abort e.message
end
