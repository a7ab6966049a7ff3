/*
 * The boot ROMs with which firmware starts what `-kernel` names: -DLINUX, -DMULTIBOOT or -DPVH. Each is an ISA option ROM
 * whose PnP header offers a bootstrap entry vector (Plug and Play BIOS specification 1.0A, appendix B). Kernel and all
 * that belongs to it come out of fw_cfg, by DMA (QEMU docs/specs/fw_cfg).
 */
#define FW_CFG_KERNEL_ADDR  0x07
#define FW_CFG_KERNEL_SIZE  0x08
#define FW_CFG_INITRD_ADDR  0x0a
#define FW_CFG_INITRD_SIZE  0x0b
#define FW_CFG_KERNEL_ENTRY 0x10
#define FW_CFG_KERNEL_DATA  0x11
#define FW_CFG_INITRD_DATA  0x12
#define FW_CFG_CMDLINE_ADDR 0x13
#define FW_CFG_CMDLINE_SIZE 0x14
#define FW_CFG_CMDLINE_DATA 0x15
#define FW_CFG_SETUP_ADDR   0x16
#define FW_CFG_SETUP_SIZE   0x17
#define FW_CFG_SETUP_DATA   0x18
#define FW_CFG_DMA_HIGH     0x514
#define FW_CFG_DMA_LOW      0x518
#define FW_CFG_DMA_ERROR    0x01
#define FW_CFG_DMA_READ     0x02
#define FW_CFG_DMA_SELECT   0x08

/* Conventional memory that nobody uses while an operating system is being loaded. */
#define DMA_ACCESS      0x8e00          /* control, length, address: big-endian */
#define NUMBER          0x8e10
#define ADDRESS         0x8e14
#define SIZE            0x8e18
#define ENTRY           0x8e1c
#define GDT_POINTER     0x8e20
#define FAR_POINTER     0x8e28
#define MEMORY_MAP      0x9000
#define INFO            0x9500
#define MEMORY_MAP_END  (INFO - 24)
#define COMMAND_LINE    0x20000
#define STACK           0x7c00

#define SMAP            0x534d4150
#define E820_RAM        1
#define E820_ENTRY      20

/* Linux/x86 boot protocol, "The real-mode kernel header". */
#define HEADER_VERSION  0x206
#define RAMDISK_IMAGE   0x218
#define INITRD_ADDR_MAX 0x22c

#define MULTIBOOT_BOOTLOADER_MAGIC 0x2badb002
#define XEN_HVM_START_MAGIC_VALUE  0x336ec578

#define CODE_32 0x08
#define DATA_32 0x10

        .code16
        .text
        .globl _start
_start:
        .word 0xaa55
        .byte (_end - _start) / 512
        xor %ax, %ax                    /* initialization: nothing to do */
        lret
        .org 0x18
        .word 0
        .word pnp
        .balign 16
pnp:    .ascii "$PnP"
        .byte 1, 2
        .word 0
        .byte 0, 0                      /* the checksum is filled in by the build */
        .long 0
        .word manufacturer, product
        .byte 0, 0, 0, 0
        .word 0, 0, boot, 0, 0

        /* Item \selector, a number, in %eax. */
        .macro number selector
        mov $\selector, %eax
        call read_number
        .endm

        /* Item \data of the size that item \size tells, to %edi. */
        .macro fetch data, size
        number \size
        mov %eax, %ecx
        mov $\data, %eax
        call read_item
        .endm

boot:   cli
        cld
        xor %eax, %eax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $STACK, %esp
        sti

#ifdef LINUX
        number FW_CFG_SETUP_ADDR
        mov %eax, ENTRY
        mov %eax, %edi
        fetch FW_CFG_SETUP_DATA, FW_CFG_SETUP_SIZE
        number FW_CFG_CMDLINE_ADDR
        mov %eax, %edi
        fetch FW_CFG_CMDLINE_DATA, FW_CFG_CMDLINE_SIZE
        number FW_CFG_KERNEL_ADDR
        mov %eax, %edi
        fetch FW_CFG_KERNEL_DATA, FW_CFG_KERNEL_SIZE
        number FW_CFG_INITRD_SIZE
        test %eax, %eax
        jz 2f

        /*
         * The initrd goes to the end of the memory that firmware leaves to us, which may be less than the machine has, but
         * not beyond what the kernel can reach.
         */
        mov %eax, SIZE
        call memory_end                 /* %eax */
        mov ENTRY, %ebx
        shr $4, %ebx
        mov %bx, %fs
        cmpw $0x203, %fs:HEADER_VERSION
        mov $0x37ffffff, %ecx
        jb 1f
        mov %fs:INITRD_ADDR_MAX, %ecx
1:      cmp %ecx, %eax
        jbe 1f
        mov %ecx, %eax
1:      sub SIZE, %eax
        and $0xfffff000, %eax
        mov %eax, %fs:RAMDISK_IMAGE
        mov %eax, %edi
        fetch FW_CFG_INITRD_DATA, FW_CFG_INITRD_SIZE
2:
        /* Real mode: all segments at the setup code, the stack below the command line, 32 paragraphs on to the entry. */
        number FW_CFG_CMDLINE_ADDR
        cli
        mov ENTRY, %ebx
        sub %ebx, %eax
        sub $16, %eax
        cmp $0xfff0, %eax
        jbe 1f
        mov $0xfff0, %eax
1:      shr $4, %ebx
        mov %bx, %ds
        mov %bx, %es
        mov %bx, %fs
        mov %bx, %gs
        mov %bx, %ss
        mov %eax, %esp
        add $0x20, %bx
        push %bx
        pushw $0
        xor %eax, %eax
        xor %ebx, %ebx
        xor %ecx, %ecx
        xor %edx, %edx
        xor %esi, %esi
        xor %edi, %edi
        xor %ebp, %ebp
        lretw

        /* INT 15h, AX=E801h: the end of RAM below 4 GiB, in %eax. */
memory_end:
        mov $0xe801, %eax
        xor %ebx, %ebx
        xor %ecx, %ecx
        xor %edx, %edx
        int $0x15
        jcxz 1f                         /* some answer in %ax and %bx alone */
        mov %cx, %ax
        mov %dx, %bx
1:      movzwl %ax, %eax
        movzwl %bx, %ebx
        test %ebx, %ebx
        jz 1f
        mov %ebx, %eax
        shl $16, %eax                   /* 64 KiB units above 16 MiB */
        add $0x1000000, %eax
        ret
1:      shl $10, %eax                   /* KiB above 1 MiB */
        add $0x100000, %eax
        ret
#endif

#ifdef MULTIBOOT
        number FW_CFG_KERNEL_ENTRY
        mov %eax, ENTRY
        number FW_CFG_KERNEL_ADDR
        mov %eax, %edi
        fetch FW_CFG_KERNEL_DATA, FW_CFG_KERNEL_SIZE
        number FW_CFG_INITRD_ADDR
        mov %eax, %edi
        fetch FW_CFG_INITRD_DATA, FW_CFG_INITRD_SIZE

        int $0x12
        movzwl %ax, %eax
        mov %eax, INFO + 4              /* mem_lower */
        mov $MEMORY_MAP, %di
        xor %ebx, %ebx
1:      movl $E820_ENTRY, (%di)         /* an entry's size, without itself */
        add $4, %di
        call memory_range
        jc 3f
        cmpl $0x100000, (%di)
        jne 2f
        cmpl $0, 4(%di)
        jne 2f
        mov 8(%di), %eax
        shr $10, %eax
        mov %eax, INFO + 8              /* mem_upper */
2:      add $E820_ENTRY, %di
        test %ebx, %ebx
        jz 4f
        cmp $MEMORY_MAP_END, %di
        jbe 1b
        jmp 4f
3:      sub $4, %di
4:      sub $MEMORY_MAP, %di
        movzwl %di, %edi
        mov %edi, INFO + 44             /* mmap_length */
        movl $MEMORY_MAP, INFO + 48     /* mmap_addr */
        mov $MULTIBOOT_BOOTLOADER_MAGIC, %eax
        mov $INFO, %ebx
        jmp protected_mode
#endif

#ifdef PVH
        number FW_CFG_KERNEL_ENTRY
        mov %eax, ENTRY
        mov $COMMAND_LINE, %edi
        fetch FW_CFG_CMDLINE_DATA, FW_CFG_CMDLINE_SIZE

        /* struct hvm_start_info, its module behind it */
        mov $INFO, %di
        mov $(56 + 32) / 2, %cx
        xor %ax, %ax
        rep stosw
        movl $XEN_HVM_START_MAGIC_VALUE, INFO
        movl $1, INFO + 4               /* version */
        movl $COMMAND_LINE, INFO + 24   /* cmdline_paddr */
        movl $MEMORY_MAP, INFO + 40     /* memmap_paddr */
        number FW_CFG_INITRD_SIZE
        test %eax, %eax
        jz 1f
        mov %eax, INFO + 56 + 8
        movl $1, INFO + 12              /* nr_modules */
        movl $INFO + 56, INFO + 16      /* modlist_paddr */
        number FW_CFG_INITRD_ADDR
        mov %eax, INFO + 56
        mov %eax, %edi
        fetch FW_CFG_INITRD_DATA, FW_CFG_INITRD_SIZE
1:
        mov $MEMORY_MAP, %di
        xor %ebx, %ebx
1:      call memory_range
        jc 2f
        movl $0, E820_ENTRY(%di)
        incl INFO + 48                  /* memmap_entries */
        add $24, %di
        test %ebx, %ebx
        jz 2f
        cmp $MEMORY_MAP_END, %di
        jbe 1b
2:
        /* The ACPI root pointer is on a paragraph of the last 128 KiB below 1 MiB (ACPI 6.4, 5.2.5.1). */
        mov $0xe000, %ax
1:      mov %ax, %fs
        cmpl $0x20445352, %fs:0         /* "RSD " */
        jne 2f
        cmpl $0x20525450, %fs:4         /* "PTR " */
        je 3f
2:      inc %ax
        jnz 1b
        jmp 4f
3:      movzwl %ax, %eax
        shl $4, %eax
        mov %eax, INFO + 32             /* rsdp_paddr */
4:      xor %eax, %eax
        mov $INFO, %ebx
        jmp protected_mode
#endif

        /* Item %eax, a number, in %eax; 0 where there is no such item. */
read_number:
        push %ecx
        push %edi
        movl $0, NUMBER
        mov $4, %ecx
        mov $NUMBER, %edi
        call read_item
        mov NUMBER, %eax
        pop %edi
        pop %ecx
        ret

        /* %ecx bytes of item %eax to the physical address %edi. */
read_item:
        push %edx
        shl $16, %eax
        or $FW_CFG_DMA_SELECT | FW_CFG_DMA_READ, %eax
        bswap %eax
        mov %eax, DMA_ACCESS
        bswap %ecx
        mov %ecx, DMA_ACCESS + 4
        movl $0, DMA_ACCESS + 8
        bswap %edi
        mov %edi, DMA_ACCESS + 12
        xor %eax, %eax
        mov $FW_CFG_DMA_HIGH, %dx
        outl %eax, %dx
        mov $DMA_ACCESS, %eax
        bswap %eax
        mov $FW_CFG_DMA_LOW, %dx
        outl %eax, %dx
1:      mov DMA_ACCESS, %eax
        bswap %eax
        test $~FW_CFG_DMA_ERROR, %eax
        jnz 1b
        pop %edx
        ret

#ifndef LINUX
        /* INT 15h, AX=E820h: the range that continues from %ebx, to %es:%di; carry where there is none. */
memory_range:
        mov $0xe820, %eax
        mov $SMAP, %edx
        mov $E820_ENTRY, %ecx
        int $0x15
        jc 1f
        cmp $SMAP, %eax
        je 1f
        stc
1:      ret

        /* Enters the kernel at ENTRY in flat 32-bit protected mode, with %eax and %ebx as they are. */
protected_mode:
        cli
        xor %edx, %edx
        mov %cs, %dx
        shl $4, %edx
        lea gdt(%edx), %ecx
        movw $gdt_end - gdt - 1, GDT_POINTER
        mov %ecx, GDT_POINTER + 2
        lea flat(%edx), %ecx
        mov %ecx, FAR_POINTER
        movw $CODE_32, FAR_POINTER + 4
        lgdtl GDT_POINTER
        mov %cr0, %edx
        or $1, %dl
        mov %edx, %cr0
        ljmpl *FAR_POINTER

        .code32
flat:   mov $DATA_32, %edx
        mov %edx, %ds
        mov %edx, %es
        mov %edx, %fs
        mov %edx, %gs
        mov %edx, %ss
        mov ENTRY, %ecx
        xor %edx, %edx
        xor %esi, %esi
        xor %edi, %edi
        xor %ebp, %ebp
        jmp *%ecx

        /* Marked as accessed: the table is in ROM. */
        .balign 8
gdt:    .quad 0
        .quad 0x00cf9b000000ffff
        .quad 0x00cf93000000ffff
gdt_end:
#endif

manufacturer:
        .asciz "Southbridge"
product:
#ifdef LINUX
        .asciz "Linux loader"
#elif defined(MULTIBOOT)
        .asciz "multiboot loader"
#else
        .asciz "PVH loader"
#endif
        .byte 0                         /* room for the checksum */
        .balign 512
_end:
        .section .note.GNU-stack, "", @progbits
