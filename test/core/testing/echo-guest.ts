import { code, dword } from '../../machine-code.ts';
import { elf } from '../loader/images.ts';

const ENTRY = 0x10_0000;

/**
 * A guest of a hundred bytes: says `ready> ` on the first serial port, says again whatever it is told, counts that in the latch of
 * pc-testdev (port 0xe0), and on a `q` leaves by isa-debug-exit with status 11.
 */
export const echoGuest: Uint8Array = elf({
  address: ENTRY,
  pvhEntry: ENTRY,
  code: Uint8Array.from([
    ...code`bc ${dword(0x9_0000)}      ; mov esp, 0x90000
      be ${dword(ENTRY + 0x61)}        ; mov esi, message
      e8 ${dword(0x45)}                ; call puts
      31 c9                            ; xor ecx, ecx
      e8 ${dword(0x1e)}                ; next: call getc
      41 89 c3 89 c8                   ; inc ecx; mov ebx, eax; mov eax, ecx
      e7 e0 89 d8                      ; out 0xe0, eax; mov eax, ebx
      3c 71 74 07                      ; cmp al, 'q'; je quit
      e8 ${dword(0x1b)}                ; call putc
      eb e7                            ; jmp next
      b0 05 66 ba 01 05 ee             ; quit: mov al, 5; mov dx, 0x501; out dx, al
      f4 eb fd                         ; hlt; jmp $-1
      66 ba fd 03 ec a8 01 74 fb       ; getc: mov dx, 0x3fd; in al, dx; test al, 1; jz
      66 ba f8 03 ec c3                ; mov dx, 0x3f8; in al, dx; ret
      50 66 ba fd 03 ec a8 20 74 fb    ; putc: push eax; mov dx, 0x3fd; in al, dx; test al, 0x20; jz
      58 66 ba f8 03 ee c3             ; pop eax; mov dx, 0x3f8; out dx, al; ret
      ac 84 c0 74 07                   ; puts: lodsb; test al, al; jz
      e8 ${dword(0xffff_ffe5)}         ; call putc
      eb f4 c3`, // jmp puts; ret
    ...Buffer.from('ready> \0'),
  ]),
});
