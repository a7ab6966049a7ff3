#pragma once
#include <napi.h>

namespace southbridge {

/** The few host calls that Node lacks; each group adds its functions to `exports`. */
void DefineFiles(Napi::Env env, Napi::Object exports);
void DefineTree(Napi::Env env, Napi::Object exports);
void DefineTransfers(Napi::Env env, Napi::Object exports);
void DefineTerminals(Napi::Env env, Napi::Object exports);
void DefineSockets(Napi::Env env, Napi::Object exports);
void DefineDatagrams(Napi::Env env, Napi::Object exports);
void DefineProcess(Napi::Env env, Napi::Object exports);
void DefineDisassembler(Napi::Env env, Napi::Object exports);
void DefineSandbox(Napi::Env env, Napi::Object exports);
void DefineZstd(Napi::Env env, Napi::Object exports);
Napi::Function DefineFdPoll(Napi::Env env);
Napi::Function DefineIoRing(Napi::Env env);
Napi::Function DefineIoThreads(Napi::Env env);
Napi::Function DefineStandInThread(Napi::Env env);

}  // namespace southbridge
