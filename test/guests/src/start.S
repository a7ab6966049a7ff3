/*
 * Entered in flat 32-bit protected mode by PVH (EBX: hvm_start_info) or multiboot (EBX: its information), or in 64-bit mode
 * by a loader that takes the ELF entry point. Ends in main(), in 32-bit mode or in 64-bit mode over identity page tables.
 */
#define MULTIBOOT_MAGIC 0x1badb002
#define CODE 0x08
#define DATA 0x10
#define CODE_32 0x18
#define RING3_DATA 0x23
#define TSS 0x30
#define RING3_CODE 0x2b

#ifndef __x86_64__
        .section .multiboot, "ax"
        .balign 4
        .long MULTIBOOT_MAGIC, 0, -MULTIBOOT_MAGIC
#endif

        .section .note.Xen, "a", @note
        .balign 4
        .long 4, 4, 18                  /* XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz "Xen"
        .long start32

        .section .text.start, "ax"
        .globl start, start32
#ifdef __x86_64__
        .code64
start:  /* already in 64-bit mode */
        lgdt gdt_pointer(%rip)
        xor %ebx, %ebx
        mov $stack_top, %esp
        push $CODE
        push $start64
        lretq

        .code32
start32:
        cld
        lgdt gdt_pointer
        ljmp $CODE_32, $1f
1:      mov $DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $stack_top, %esp
        /* One PML4 entry, one page of directory pointers, four directories of 2 MiB pages: 4 GiB onto themselves, for all rings. */
        movl $page_pdpt + 7, page_pml4
        mov $page_pdpt, %edi
        mov $page_directories + 7, %eax
        mov $4, %ecx
2:      mov %eax, (%edi)
        add $8, %edi
        add $0x1000, %eax
        dec %ecx
        jnz 2b
        mov $page_directories, %edi
        mov $0x87, %eax
        mov $2048, %ecx
3:      mov %eax, (%edi)
        add $8, %edi
        add $0x200000, %eax
        dec %ecx
        jnz 3b
        mov $page_pml4, %eax
        mov %eax, %cr3
        mov %cr4, %eax
        or $0x20, %eax                  /* PAE */
        mov %eax, %cr4
        mov $0xc0000080, %ecx           /* EFER */
        rdmsr
        or $0x100, %eax                 /* LME */
        wrmsr
        mov %cr0, %eax
        or $0x80000000, %eax
        mov %eax, %cr0
        ljmp $CODE, $start64

        .code64
start64:
        mov $DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        xor %eax, %eax
        mov %eax, %fs
        mov %eax, %gs
        mov %ebx, %edi
        call main
4:      cli
        hlt
        jmp 4b

        .text
        .globl enter_ring3
enter_ring3:
        /* I/O privilege level 3 should do, but some virtual CPUs look at the I/O permission bitmap all the same. */
        mov $tss, %eax
        mov %ax, gdt_tss + 2
        shr $16, %eax
        mov %al, gdt_tss + 4
        mov %ah, gdt_tss + 7
        movw $104, tss + 102
        movb $0xff, tss_end - 1
        mov $TSS, %eax
        ltr %ax
        pop %rax
        mov %rsp, %rdx
        push $RING3_DATA
        push %rdx
        push $0x3002                    /* IOPL 3 */
        push $RING3_CODE
        push %rax
        iretq
#else
        .code32
start:
start32:
        cld
        lgdt gdt_pointer
        ljmp $CODE, $1f
1:      mov $DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %fs
        mov %eax, %gs
        mov %eax, %ss
        mov $stack_top, %esp
        push %ebx
        call main
4:      cli
        hlt
        jmp 4b
#endif

        /* All descriptors are marked as accessed: some virtual CPUs would otherwise write to the table. */
        .section .data
        .balign 16
        .globl gdt
gdt:    .quad 0
#ifdef __x86_64__
        .quad 0x00af9b000000ffff        /* 64-bit code */
#else
        .quad 0x00cf9b000000ffff        /* 32-bit code */
#endif
        .quad 0x00cf93000000ffff        /* data */
        .quad 0x00cf9b000000ffff        /* 32-bit code, on the way */
        .quad 0x00aff3000000ffff        /* data, ring 3 */
        .quad 0x00affb000000ffff        /* 64-bit code, ring 3 */
#ifdef __x86_64__
gdt_tss:.quad 0x0000890000000000 + tss_end - tss - 1, 0
#endif
gdt_end:
gdt_pointer:
        .word gdt_end - gdt - 1
#ifdef __x86_64__
        .quad gdt
#else
        .long gdt
#endif

        .section .bss
        .balign 4096
#ifdef __x86_64__
        .globl page_pml4
page_pml4: .skip 4096
page_pdpt: .skip 4096
page_directories: .skip 4 * 4096
tss:    .skip 104 + 8192 + 1
tss_end:
        .balign 16
#endif
        .skip 16384
        .globl stack_top
stack_top:
        .section .note.GNU-stack, "", @progbits
