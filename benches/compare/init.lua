-- What every request shares: the callers by digest, and libcrypto with the key schedule prepared.
local ffi = require "ffi"
ffi.cdef [[
typedef struct { uint32_t words[28]; } countersign_sha256;
int SHA256_Init(countersign_sha256 *state);
int SHA256_Update(countersign_sha256 *state, const char *data, size_t length);
int SHA256_Final(unsigned char *digest, countersign_sha256 *state);
typedef struct countersign_hmac countersign_hmac;
const void *EVP_sha256(void);
countersign_hmac *HMAC_CTX_new(void);
int HMAC_Init_ex(countersign_hmac *state, const char *key, int length, const void *md, void *engine);
int HMAC_Update(countersign_hmac *state, const char *data, size_t length);
int HMAC_Final(countersign_hmac *state, unsigned char *digest, unsigned int *length);
]]
local C = ffi.C
local string_of = ffi.string
local sha256 = ffi.new("countersign_sha256")
local digest = ffi.new("unsigned char[32]")
local hex = ffi.new("unsigned char[64]")
local digits = ffi.new("unsigned char[16]", "0123456789abcdef")
local rshift, band = bit.rshift, bit.band
local hmac = C.HMAC_CTX_new()
local secret = "{secret}"
assert(C.HMAC_Init_ex(hmac, secret, #secret, C.EVP_sha256(), nil) == 1)

countersign = {
  -- Digest in 32 bytes to { caller, user }.
  callers = {},
  key = "{key}",
}

function countersign.digest_of(text)
  C.SHA256_Init(sha256)
  C.SHA256_Update(sha256, text, #text)
  C.SHA256_Final(digest, sha256)
  return string_of(digest, 32)
end

function countersign.hash_of(message)
  C.HMAC_Init_ex(hmac, nil, 0, nil, nil)
  C.HMAC_Update(hmac, message, #message)
  C.HMAC_Final(hmac, digest, nil)
  for at = 0, 31 do
    hex[2 * at] = digits[rshift(digest[at], 4)]
    hex[2 * at + 1] = digits[band(digest[at], 15)]
  end
  return string_of(hex, 64)
end

for line in io.lines("{folder}/callers.txt") do
  local sha, caller, user = line:match("^(%S+) (%S+) (%S+)$")
  local bytes = sha:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end)
  countersign.callers[bytes] = { caller, user }
end
