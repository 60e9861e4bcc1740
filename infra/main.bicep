metadata description = 'All that popularity-reports needs on Azure, without a password or key anywhere. The output chartValues is a values file of the chart.'

@description('Region of all resources.')
param location string = resourceGroup().location

@description('Name of the Helm release.')
param release string = 'popularity-reports'

@description('Kubernetes namespace of the release.')
param namespace string = 'popularity-reports'

@description('What the names that must be unique in all of Azure begin with: lower-case letters and digits.')
@minLength(3)
@maxLength(11)
param namePrefix string

@description('Object id in Entra of the user or group that administers PostgreSQL, and makes the identities\' roles there once.')
param databaseAdministratorObjectId string

@description('Name in Entra of that user or group.')
param databaseAdministratorName string

@description('What that is.')
@allowed(['User', 'Group', 'ServicePrincipal'])
param databaseAdministratorType string = 'Group'

@description('Object ids of the Entra groups that administer the cluster.')
@minLength(1)
param clusterAdministratorGroupIds string[]

@description('Kubernetes version, as MAJOR.MINOR.')
param kubernetesVersion string = '1.34'

@description('Size of a node.')
param nodeSize string = 'Standard_D2ds_v5'

@description('The fewest nodes.')
@minValue(1)
param nodesMin int = 2

@description('The most nodes.')
@minValue(1)
param nodesMax int = 5

@description('Zones that the nodes are spread over; [] where the region has none.')
param zones string[] = ['1', '2', '3']

@description('Name of the reports\' database.')
param databaseName string = 'popularity_reports'

@description('Size of the PostgreSQL server.')
param databaseSkuName string = 'Standard_D2ds_v5'

@description('Class of that size.')
@allowed(['Burstable', 'GeneralPurpose', 'MemoryOptimized'])
param databaseSkuTier string = 'GeneralPurpose'

@description('Size of the PostgreSQL server\'s disk in GiB.')
param databaseStorageGB int = 64

@description('For how many days backups of the database are kept.')
@minValue(7)
@maxValue(35)
param databaseBackupDays int = 14

@description('Whether a second PostgreSQL server stands ready; Burstable has none.')
@allowed(['Disabled', 'SameZone', 'ZoneRedundant'])
param databaseHighAvailability string = 'ZoneRedundant'

@description('Host name of the catalogue\'s server or of a read replica of it; empty: the reports\' server. One elsewhere needs a firewall rule for the output clusterAddress.')
param catalogueHost string = ''

@description('Name of the catalogue\'s database.')
param catalogueDatabase string = 'music_albums'

@description('Name of the queue.')
param queueName string = 'report-requests'

@description('For how long a message is the operator\'s alone, as an ISO 8601 duration. It is settled within milliseconds.')
param queueLockDuration string = 'PT1M'

@description('After how many deliveries a message goes to the dead letters.')
@minValue(1)
param queueMaxDeliveryCount int = 10

@description('For how long a second message of the same id is dropped, as an ISO 8601 duration.')
param queueDuplicateDetectionWindow string = 'PT10M'

@description('For how long a message waits before it goes to the dead letters, as an ISO 8601 duration.')
param queueTimeToLive string = 'P14D'

@description('How many copies of the files are kept, and where.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
param blobRedundancy string = 'Standard_ZRS'

@description('Name of the container.')
param containerName string = 'reports'

@description('After how many days a file is deleted whatever else happens. It must be longer than any report is to be kept (ttlSecondsAfterFinished).')
@minValue(1)
param blobDeleteAfterDays int = 365

@description('For how many days a deleted file or container can be brought back.')
@minValue(1)
@maxValue(365)
param blobSoftDeleteDays int = 14

// as the chart's own helper `popularity-reports.fullname`
var fullName = contains(release, 'popularity-reports') ? release : '${release}-popularity-reports'
var unique = '${namePrefix}${uniqueString(resourceGroup().id)}'
var nodeResourceGroup = '${resourceGroup().name}-nodes'
var programs = ['api', 'operator', 'exporter', 'migrations']

module cluster 'modules/cluster.bicep' = {
  name: 'cluster'
  params: {
    location: location
    name: fullName
    kubernetesVersion: kubernetesVersion
    nodeSize: nodeSize
    nodesMin: nodesMin
    nodesMax: nodesMax
    zones: zones
    administratorGroupIds: clusterAdministratorGroupIds
    nodeResourceGroup: nodeResourceGroup
  }
}

module address 'modules/address.bicep' = {
  name: 'address'
  scope: resourceGroup(nodeResourceGroup)
  params: {
    name: cluster.outputs.outboundAddressName
  }
}

module identities 'modules/identities.bicep' = {
  name: 'identities'
  params: {
    location: location
    programs: programs
    prefix: fullName
    namespace: namespace
    issuer: cluster.outputs.issuer
  }
}

module serviceBus 'modules/service-bus.bicep' = {
  name: 'service-bus'
  params: {
    location: location
    name: unique
    queueName: queueName
    lockDuration: queueLockDuration
    maxDeliveryCount: queueMaxDeliveryCount
    duplicateDetectionWindow: queueDuplicateDetectionWindow
    timeToLive: queueTimeToLive
    operatorPrincipalId: identities.outputs.identities[1].principalId
  }
}

module storage 'modules/storage.bicep' = {
  name: 'storage'
  params: {
    location: location
    name: unique
    redundancy: blobRedundancy
    containerName: containerName
    deleteAfterDays: blobDeleteAfterDays
    softDeleteDays: blobSoftDeleteDays
    apiPrincipalId: identities.outputs.identities[0].principalId
    operatorPrincipalId: identities.outputs.identities[1].principalId
    exporterPrincipalId: identities.outputs.identities[2].principalId
  }
}

module postgres 'modules/postgres.bicep' = {
  name: 'postgres'
  params: {
    location: location
    name: unique
    skuName: databaseSkuName
    skuTier: databaseSkuTier
    storageSizeGB: databaseStorageGB
    backupRetentionDays: databaseBackupDays
    highAvailability: databaseHighAvailability
    administratorObjectId: databaseAdministratorObjectId
    administratorName: databaseAdministratorName
    administratorType: databaseAdministratorType
    clusterAddress: address.outputs.ipAddress
  }
}

@description('Name of the cluster, for az aks get-credentials.')
output clusterName string = fullName

@description('Address that connections of pods come from.')
output clusterAddress string = address.outputs.ipAddress

@description('Host name of the PostgreSQL server, for the administrator.')
output databaseHost string = postgres.outputs.hostName

@description('Names and object ids of the four identities, for their PostgreSQL roles (README.md).')
output identities array = identities.outputs.identities

@description('Values of the chart, to be laid over values-aks.yaml.')
output chartValues object = {
  workloadIdentity: {
    enabled: true
    tenantId: tenant().tenantId
    api: {
      clientId: identities.outputs.identities[0].clientId
    }
    operator: {
      clientId: identities.outputs.identities[1].clientId
    }
    exporter: {
      clientId: identities.outputs.identities[2].clientId
    }
    migrations: {
      clientId: identities.outputs.identities[3].clientId
    }
  }
  database: {
    host: postgres.outputs.hostName
    name: databaseName
    users: {
      api: identities.outputs.identities[0].name
      operator: identities.outputs.identities[1].name
      exporter: identities.outputs.identities[2].name
      migrations: identities.outputs.identities[3].name
    }
    catalogue: {
      host: catalogueHost
      name: catalogueDatabase
    }
  }
  serviceBus: {
    namespace: serviceBus.outputs.hostName
    queue: serviceBus.outputs.queueName
  }
  blob: {
    endpoint: storage.outputs.endpoint
    container: storage.outputs.containerName
  }
}
