/* A program for Linux that has the kernel's "virtio_crypto_aes_cbc" encipher, and prints what comes out (Linux, AF_ALG). */

#define SYS_EXIT 1
#define SYS_READ 3
#define SYS_WRITE 4
#define SYS_SOCKET 359
#define SYS_BIND 361
#define SYS_ACCEPT4 364
#define SYS_SETSOCKOPT 366
#define SYS_SENDMSG 370

#define AF_ALG 38
#define SOCK_SEQPACKET 5
#define SOL_ALG 279
#define ALG_SET_KEY 1
#define ALG_SET_IV 2
#define ALG_SET_OP 3
#define ALG_OP_ENCRYPT 1

struct sockaddr_alg {
    unsigned short family;
    char type[14];
    unsigned int features, mask;
    char name[64];
};
struct header {
    unsigned int length;
    int level, type;
};
struct iovec {
    const void *base;
    unsigned int length;
};
struct message {
    void *name;
    int name_length;
    struct iovec *pieces;
    unsigned int count;
    void *control;
    unsigned int control_length, flags;
};
struct control {
    struct header operation_header;
    unsigned int operation;
    struct header iv_header;
    unsigned int iv_length;
    unsigned char iv[16];
};

static long call(long number, long a, long b, long c, long d, long e) {
    long result;
    asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
    return result;
}

static void say(const char *text, unsigned int length) {
    call(SYS_WRITE, 1, (long)text, length, 0, 0);
}

static void check(long result, const char *step) {
    char number[12];
    int at = sizeof number;
    if (result >= 0) return;
    say(step, 8);
    number[--at] = '\n';
    for (unsigned int left = -result; left > 0; left /= 10) number[--at] = '0' + left % 10;
    say(number + at, sizeof number - at);
    call(SYS_EXIT, 1, 0, 0, 0, 0);
}

/* NIST SP 800-38A, F.2.1. */
static const unsigned char key[16] = {0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6,
                                      0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c};
static const unsigned char plain[32] = {0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d, 0x7e,
                                        0x11, 0x73, 0x93, 0x17, 0x2a, 0xae, 0x2d, 0x8a, 0x57, 0x1e, 0x03,
                                        0xac, 0x9c, 0x9e, 0xb7, 0x6f, 0xac, 0x45, 0xaf, 0x8e, 0x51};
static struct sockaddr_alg address = {AF_ALG, "skcipher", 0, 0, "virtio_crypto_aes_cbc"};
static struct control control = {{16, SOL_ALG, ALG_SET_OP}, ALG_OP_ENCRYPT, {32, SOL_ALG, ALG_SET_IV}, 16, {0}};
static unsigned char secret[32];
static char text[65];

void _start(void) {
    struct iovec piece = {plain, sizeof plain};
    struct message message = {0, 0, &piece, 1, &control, sizeof control, 0};
    long algorithm, operation;
    for (int at = 0; at < 16; at++) control.iv[at] = at;
    check(algorithm = call(SYS_SOCKET, AF_ALG, SOCK_SEQPACKET, 0, 0, 0), "socket  ");
    check(call(SYS_BIND, algorithm, (long)&address, sizeof address, 0, 0), "bind    ");
    check(call(SYS_SETSOCKOPT, algorithm, SOL_ALG, ALG_SET_KEY, (long)key, sizeof key), "key     ");
    check(operation = call(SYS_ACCEPT4, algorithm, 0, 0, 0, 0), "accept  ");
    check(call(SYS_SENDMSG, operation, (long)&message, 0, 0, 0), "sendmsg ");
    check(call(SYS_READ, operation, (long)secret, sizeof secret, 0, 0), "read    ");
    for (int at = 0; at < 32; at++) {
        text[2 * at] = "0123456789abcdef"[secret[at] >> 4];
        text[2 * at + 1] = "0123456789abcdef"[secret[at] & 15];
    }
    text[64] = '\n';
    say(text, 65);
    call(SYS_EXIT, 0, 0, 0, 0, 0);
}
