package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"strings"

	"go.uber.org/zap"

	"imgcluster/cluster/access"
	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// clientTLS returns the node's side of clients' connections, with its own certificate or the operator's; nil
// where clients use plain HTTP.
func (n *Node) clientTLS() (*tls.Config, error) {
	if !n.cfg.Secured() {
		return nil, nil
	}
	serve := n.authority.Node(n.self.ID, hostName(n.self.Host), aliases(n.cfg, n.self)...).Get
	if n.cfg.OwnCertificate() {
		files, err := n.openCertificate()
		if err != nil {
			return nil, err
		}
		serve, n.certificate = files.Get, files
	}
	config := n.authority.ClientServer(serve)
	// Images are large: small records, with which TLS begins, would only cost time.
	config.DynamicRecordSizingDisabled = true
	return config, nil
}

// openCertificate reads the operator's certificate. What clients will refuse is logged only: the other nodes
// need this one all the same.
func (n *Node) openCertificate() (*access.Files, error) {
	logger := n.logger.Named("tls")
	check := func(leaf *x509.Certificate) {
		if err := access.Served(leaf, n.self.Host); err != nil {
			logger.Warn("clients refuse this node's certificate", zap.Error(err),
				zap.String("hint", image.HintOf(err)))
		}
	}
	chain, key := n.cfg.TLS.CertFile, n.cfg.TLS.KeyFile
	files, err := access.OpenFiles(chain, key, func(leaf *x509.Certificate, err error) {
		if err != nil {
			logger.Error("the changed certificate is not used: the one before it is", zap.Error(err),
				zap.String("hint", image.HintOf(err)))
			return
		}
		logger.Info("uses the changed certificate", zap.String("file", chain),
			zap.Time("valid_until", leaf.NotAfter))
		check(leaf)
	})
	if err != nil {
		return nil, bootstrap.Refuse(image.HintOf(err), "%w", err)
	}
	check(files.Leaf())
	return files, nil
}

// aliases are the names and addresses, beside its host, by which clients reach a node: those of
// node.host_names, the address that it listens on, and with localhost its addresses.
func aliases(cfg *config.Config, self config.Node) (list []string) {
	for name := range strings.SplitSeq(cfg.Local.HostNames, ",") {
		name = hostName(name)
		if list = append(list, name); name == "localhost" {
			list = append(list, "127.0.0.1", "::1")
		}
	}
	on := cfg.ListenOn(self).Host
	if addr, err := netip.ParseAddr(on); err == nil && !addr.IsUnspecified() && on != self.Host {
		list = append(list, on)
	}
	return list
}
