# Checks the signature of a callback. Needs Ruby 3.0 or newer and no gem.
#
# How to run it: as CGI gives a request, its headers in the environment and its body on stdin. In a server of yours call
# `verify` with the headers and the bytes of the body as they came, before they are parsed.
#
#     CALLBACK_SECRET=whsec_... HTTP_WEBHOOK_ID=... HTTP_WEBHOOK_TIMESTAMP=... HTTP_WEBHOOK_SIGNATURE=... \
#         ruby ops/examples/receivers/verify.rb < body.json

require "json"
require "openssl"

# True if DJPS signed this body less than five minutes ago. Keep the ids that you have done: one that comes again is a replay.
def verify(secret, id, timestamp, signatures, body)
  return false unless id != "" && timestamp.match?(/\A\d+\z/) && (Time.now.to_i - timestamp.to_i).abs < 300

  key = secret.delete_prefix("whsec_").unpack1("m")
  mine = "v1,#{[OpenSSL::HMAC.digest('SHA256', key, "#{id}.#{timestamp}.#{body}")].pack('m0')}"
  signatures.split.any? { |theirs| OpenSSL.secure_compare(theirs, mine) }
end

headers = %w[ID TIMESTAMP SIGNATURE].map { |name| ENV.fetch("HTTP_WEBHOOK_#{name}", "") }
body = $stdin.binmode.read
abort "not signed by DJPS, or too old" unless verify(ENV.fetch("CALLBACK_SECRET"), *headers, body)

told = JSON.parse(body)
puts "#{told['data']['id']} #{told['data']['status']}"
