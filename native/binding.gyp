{
  'targets': [{
    'target_name': 'southbridge',
    'sources': [
      'addon.cc', 'errors.cc', 'mapping.cc',
      'kvm_vm.cc', 'kvm_vcpu.cc', 'run.cc', 'scheduler.cc', 'vcpu_thread.cc', 'watcher.cc',
      'host_files.cc', 'host_tree.cc', 'host_terminals.cc', 'host_sockets.cc', 'host_datagrams.cc', 'host_process.cc', 'fd_poll.cc', 'stand_in_thread.cc',
      'disassembler.cc', 'file_transfer.cc', 'io_ring.cc', 'io_threads.cc', 'sandbox.cc', 'slirp.cc', 'slirp_library.cc', 'zstd.cc',
    ],
    'include_dirs': ["<!@(node -p \"require('node-addon-api').include\")"],
    'defines': ['NAPI_VERSION=9', 'NAPI_CPP_EXCEPTIONS', '_FILE_OFFSET_BITS=64'],
    'cflags_cc!': ['-fno-exceptions', '-std=gnu++17'],
    'cflags_cc': ['-std=c++17', '-fexceptions', '-Wall', '-Wextra', '-Wno-unused-parameter', '-Wno-cast-function-type', '-fvisibility=hidden'],
    'cflags!': ['-O3'],
    'cflags': ['-O2'],
    'libraries': ['-lutil', '-ldl'],
    'ldflags': ['-Wl,-z,relro,-z,now'],
  }],
}
