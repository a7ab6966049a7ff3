/* Sixteen entries for the two 8259A, at vectors 0x20 to 0x2f; each calls interrupt(irq). */
        .text
#ifdef __x86_64__
        .code64
        .macro entry irq
        .balign 16
        push %rax
        mov $\irq, %eax
        jmp common
        .endm
common: push %rcx
        push %rdx
        push %rsi
        push %rdi
        push %r8
        push %r9
        push %r10
        push %r11
        mov %eax, %edi
        cld
        call interrupt
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rdi
        pop %rsi
        pop %rdx
        pop %rcx
        pop %rax
        iretq
#else
        .code32
        .macro entry irq
        .balign 16
        push %eax
        mov $\irq, %eax
        jmp common
        .endm
common: push %ecx
        push %edx
        push %eax
        cld
        call interrupt
        add $4, %esp
        pop %edx
        pop %ecx
        pop %eax
        iretl
#endif
        .balign 16
        .globl vectors
vectors:
        .altmacro
        .set irq, 0
        .rept 16
        entry %irq
        .set irq, irq + 1
        .endr
        .section .note.GNU-stack, "", @progbits
