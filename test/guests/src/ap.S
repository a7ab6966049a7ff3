/* Where the other CPUs begin: copied to a page below 1 MiB, entered there in real mode by a start-up IPI, left in the guest's mode. */
        .text
        .globl ap_trampoline, ap_trampoline_end
        .code16
ap_trampoline:
        cli
        cld
        mov %cs, %ax
        mov %ax, %ds
        lgdtl ap_gdt_pointer - ap_trampoline
#ifdef __x86_64__
        mov $page_pml4, %eax
        mov %eax, %cr3
        mov %cr4, %eax
        or $0x20, %eax
        mov %eax, %cr4
        mov $0xc0000080, %ecx
        rdmsr
        or $0x100, %eax
        wrmsr
        mov %cr0, %eax
        and $0x9fffffff, %eax           /* caches on */
        or $0x80000001, %eax            /* paging and protection at once: straight into long mode */
#else
        mov %cr0, %eax
        and $0x9fffffff, %eax
        or $0x00000001, %eax
#endif
        mov %eax, %cr0
        ljmpl $0x08, $ap_begin
        .balign 8
ap_gdt_pointer:
        .word 0x1f
        .long gdt
ap_trampoline_end:

#ifdef __x86_64__
        .code64
ap_begin:
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $1, %eax
        lock xadd %eax, ap_count(%rip)
        inc %eax
        mov %eax, %edi
        shl $12, %eax
        lea ap_stacks(%rip), %rsp
        add %rax, %rsp
        call ap_main
1:      cli
        hlt
        jmp 1b

        /* Vector 0x40: an inter-processor interrupt. */
        .globl ipi_entry
        .balign 16
ipi_entry:
        push %rax
        push %rdx
        lock incl ipi_count(%rip)
        mov $0xfee000b0, %edx
        movl $0, (%rdx)
        pop %rdx
        pop %rax
        iretq
#else
        .code32
ap_begin:
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $1, %eax
        lock xadd %eax, ap_count
        inc %eax
        mov %eax, %edx
        shl $12, %eax
        lea ap_stacks(%eax), %esp
        push %edx
        call ap_main
1:      cli
        hlt
        jmp 1b

        .globl ipi_entry
        .balign 16
ipi_entry:
        push %edx
        lock incl ipi_count
        mov $0xfee000b0, %edx
        movl $0, (%edx)
        pop %edx
        iretl
#endif

        .section .bss
        .balign 4096
        .globl ap_count, ipi_count
ap_stacks: .skip 4096 * 17
ap_count:  .long 0
ipi_count: .long 0
        .section .note.GNU-stack, "", @progbits
