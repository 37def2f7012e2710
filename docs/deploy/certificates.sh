#!/bin/sh
# Makes an authority and the server's certificate in FOLDER, for the public NAME and for those within Kubernetes.
#
#   sh docs/deploy/certificates.sh FOLDER NAME
set -eu
umask 077
cd "$1"
cat > tls.ext <<END
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:$2, DNS:m2ib.m2ib.svc.cluster.local, DNS:*.m2ib.m2ib.svc.cluster.local
END
openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=m2ib-authority -keyout ca.key -out ca.crt
openssl req -newkey rsa:3072 -nodes -subj /CN=m2ib -keyout tls.key -out tls.csr
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile tls.ext -out tls.crt
rm tls.ext tls.csr
