#pragma once
#include <napi.h>

namespace southbridge {

/** The class of user-mode networks, on libslirp where the host has it. */
Napi::Function DefineSlirp(Napi::Env env);

}  // namespace southbridge
