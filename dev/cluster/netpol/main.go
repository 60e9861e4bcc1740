// Command netpol enforces NetworkPolicies on the bundled cluster, by the controller of
// sigs.k8s.io/kube-network-policies: it judges the first packet of each connection in user space.
//
// The controller's own way of getting those packets is an nftables queue in POSTROUTING. That is not enough
// here: the kernel may lack it, and what Pods send to programs on the host (the API server and the neighbours
// among them) never comes to POSTROUTING. So the cluster script hands the packets over by iptables' NFQUEUE
// target, and the controller's complaint about its own rules, where there is one, is harmless.
package main

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	node := flag.String("node", "", "name of the Node whose Pods are judged")
	queue := flag.Int("queue", 0, "number of the netfilter queue")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kubeconfig, *node, *queue); err != nil {
		klog.ErrorS(err, "NetworkPolicies are not enforced")
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, node string, queue int) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	controller, err := networkpolicy.NewController(
		client,
		factory.Networking().V1().NetworkPolicies(),
		factory.Core().V1().Namespaces(),
		factory.Core().V1().Pods(),
		nil, nil, nil, nil,
		// The NRI plugin stays on although this containerd has none: without it the controller of this
		// version fails on the first address that is no Pod's.
		networkpolicy.Config{QueueID: queue, NodeName: node},
	)
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	return controller.Run(ctx)
}
