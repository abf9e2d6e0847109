local shared = countersign
local byte, find, sub = string.byte, string.find, string.sub
local var = ngx.var
local A, P, X = byte("apx", 1, 3)

local headers = ngx.req.get_headers(128)

-- The one credential: X-Api-Key, or Authorization: Bearer.
local key, authorization = headers["x-api-key"], headers["authorization"]
if authorization then
  if key or type(authorization) == "table" then
    return ngx.exit(400)
  end
  local _, opening = find(authorization, "^[Bb][Ee][Aa][Rr][Ee][Rr] +")
  key = opening and sub(authorization, opening + 1)
end
if not key or type(key) == "table" then
  return ngx.exit(401)
end
local caller = shared.callers[shared.digest_of(key)]
if not caller then
  return ngx.exit(401)
end

-- Prefixes of what must not go up. Its names are in nginx.conf, and nginx itself ignores names with `_`.
for name in pairs(headers) do
  local first = byte(name)
  if first == X then
    if find(name, "^x%-deki%-") and name ~= "x-deki-client" or find(name, "^x%-dream%-")
      or find(name, "^x%-forwarded%-") or find(name, "^x%-countersign%-")
    then
      ngx.req.clear_header(name)
    end
  elseif first == P and find(name, "^proxy%-") or first == A and find(name, "^access%-control%-") then
    ngx.req.clear_header(name)
  end
end

local message = shared.key .. "_" .. ngx.time() .. "_" .. caller[2]
var.token = "tkn_" .. message .. "_" .. shared.hash_of(message)
var.caller = caller[1]
var.caller_user = caller[2]
