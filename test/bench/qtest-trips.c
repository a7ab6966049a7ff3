/* A client of the qtest protocol: TRIPS times a line to the socket PATH and its answer back. Prints microseconds in all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    const long trips = atol(argv[2]);
    char line[256], answer[256];
    const size_t length = (size_t)snprintf(line, sizeof line, "%s\n", argv[3]);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) return 1;
    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (long trip = 0; trip < trips; trip++) {
        if (write(fd, line, length) != (ssize_t)length) return 1;
        size_t got = 0;
        do {
            const ssize_t more = read(fd, answer + got, sizeof answer - got);
            if (more <= 0) return 1;
            got += (size_t)more;
        } while (answer[got - 1] != '\n');
        if (memcmp(answer, "OK", 2) != 0) return 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%.0f\n", (ended.tv_sec - began.tv_sec) * 1e6 + (ended.tv_nsec - began.tv_nsec) / 1e3);
    return 0;
}
