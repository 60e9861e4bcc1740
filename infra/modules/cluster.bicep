metadata description = 'The AKS cluster: it signs service account tokens that Entra believes, and enforces NetworkPolicies.'

@description('Region of the cluster.')
param location string

@description('Name of the cluster.')
param name string

@description('Kubernetes version, as MAJOR.MINOR.')
param kubernetesVersion string

@description('Size of a node.')
param nodeSize string

@description('The fewest nodes.')
@minValue(1)
param nodesMin int

@description('The most nodes.')
param nodesMax int

@description('Zones that the nodes are spread over; none where the region has none.')
param zones string[]

@description('Object ids of the Entra groups that administer the cluster: it has no local accounts.')
param administratorGroupIds string[]

@description('Name of the resource group that AKS makes for what belongs to the cluster.')
param nodeResourceGroup string

resource cluster 'Microsoft.ContainerService/managedClusters@2024-09-01' = {
  name: name
  location: location
  identity: {
    type: 'SystemAssigned'
  }
  sku: {
    name: 'Base'
    tier: 'Standard'
  }
  properties: {
    dnsPrefix: name
    kubernetesVersion: kubernetesVersion
    nodeResourceGroup: nodeResourceGroup
    disableLocalAccounts: true
    enableRBAC: true
    aadProfile: {
      managed: true
      enableAzureRBAC: false
      adminGroupObjectIDs: administratorGroupIds
    }
    oidcIssuerProfile: {
      enabled: true
    }
    securityProfile: {
      workloadIdentity: {
        enabled: true
      }
    }
    networkProfile: {
      networkPlugin: 'azure'
      networkPluginMode: 'overlay'
      networkDataplane: 'cilium'
      networkPolicy: 'cilium'
      outboundType: 'loadBalancer'
      loadBalancerSku: 'standard'
    }
    agentPoolProfiles: [
      {
        name: 'system'
        mode: 'System'
        vmSize: nodeSize
        count: nodesMin
        minCount: nodesMin
        maxCount: nodesMax
        enableAutoScaling: true
        availabilityZones: zones
        osType: 'Linux'
        osSKU: 'AzureLinux'
      }
    ]
    autoUpgradeProfile: {
      upgradeChannel: 'patch'
      nodeOSUpgradeChannel: 'NodeImage'
    }
  }
}

@description('Issuer of the cluster\'s service account tokens.')
output issuer string = cluster.properties.oidcIssuerProfile.issuerURL

@description('Name of the public address that connections of pods come from; it is in the nodes\' resource group.')
output outboundAddressName string = last(split(cluster.properties.networkProfile.loadBalancerProfile.effectiveOutboundIPs[0].id, '/'))
