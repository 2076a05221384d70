// The options of ps_ctx_create, as text.
#pragma once
#include <cstring>
#include <string>

/* The value of "name" in one flat JSON object of numbers, booleans and strings without escapes: our own caller's. */
inline std::string option(const char* json, const char* name, const char* otherwise) {
  const std::string key = std::string("\"") + name + "\":";
  const char* found = json ? strstr(json, key.c_str()) : nullptr;
  if (!found) return otherwise;
  found += key.size();
  while (*found == ' ' || *found == '"') found++;
  return std::string(found, strcspn(found, ",\"} "));
}
