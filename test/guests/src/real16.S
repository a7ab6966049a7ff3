/*
 * A boot sector, 16 bits throughout: takes ten interrupts of the 8254 through the real-mode vector table, says so on COM1,
 * and leaves through isa-debug-exit with 0x10 (QEMU's exit status is then 33). Needs no firmware, and does not mind one.
 */
        .code16
        .text
        .globl start
start:  cli
        cld
        xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $0x7c00, %sp
        ljmp $0, $1f
1:
        /* COM1: 115200 8N1 */
        mov $uart, %si
        mov $(uart_end - uart) / 3, %cx
        call registers
        mov $hello, %si
        call print

        /* 8259A: IRQ 0 to 7 at vectors 8 to 15, as the BIOS has them; only IRQ 0 passes. 8254: counter 0 at 100 Hz. */
        movw $tick, 8 * 4
        movw $0, 8 * 4 + 2
        mov $chips, %si
        mov $(chips_end - chips) / 3, %cx
        call registers
2:      sti
        hlt
        cli
        cmpb $10, ticks
        jb 2b

        mov $done, %si
        call print
        mov $0xf4, %dx
        mov $0x10, %al
        outb %al, %dx
3:      hlt
        jmp 3b

tick:   push %ax
        incb ticks
        mov $0x20, %al
        outb %al, $0x20
        pop %ax
        iret

/* Writes %cx triples of port (16 bits) and value from %si. */
registers:
        lodsw
        mov %ax, %dx
        lodsb
        outb %al, %dx
        loop registers
        ret

print:  lodsb
        test %al, %al
        jz 2f
        mov %al, %bl
        mov $0x3fd, %dx
1:      inb %dx, %al
        test $0x20, %al
        jz 1b
        mov $0x3f8, %dx
        mov %bl, %al
        outb %al, %dx
        jmp print
2:      ret

        .macro set port, value
        .word \port
        .byte \value
        .endm
uart:   set 0x3f9, 0x00
        set 0x3fb, 0x80
        set 0x3f8, 0x01
        set 0x3f9, 0x00
        set 0x3fb, 0x03
        set 0x3fa, 0x07
uart_end:
chips:  set 0x20, 0x11
        set 0x21, 0x08
        set 0x21, 0x04
        set 0x21, 0x01
        set 0x21, 0xfe
        set 0x43, 0x34
        set 0x40, 0x9c
        set 0x40, 0x2e
chips_end:
hello:  .asciz "real mode: hello\r\n"
done:   .asciz "real mode: 10 timer interrupts\r\n"
ticks:  .byte 0

        .org 510
        .word 0xaa55
        .section .note.GNU-stack, "", @progbits
