# SPDX-License-Identifier: MPL-2.0

<#
.SYNOPSIS
Onboards a domain controller with a Microsoft Defender for Identity sensor of version 3.x,
without Defender for Endpoint, with the deployment access key from Vault.

.DESCRIPTION
The usual sensor of version 3.x is activated through Defender for Endpoint and needs no key.
This script is for Microsoft's preview without it. The onboarding script from the package
that the Defender portal generates asks for the key at a prompt; Microsoft documents no
parameter and no file for it, so a person has to be there, and Vault Agent cannot do it.

Run it as an administrator in Windows PowerShell on the domain controller, with VAULT_TOKEN
set to a token of the policy sensor-host. It reads the key, runs the onboarding script, and
offers the key in the clipboard, to be pasted at the prompt with a right click. Then it
empties the clipboard and ends the lease, so that the key stops working if no one else
holds it. Ending it takes update on sys/leases/revoke, which that policy does not have;
without it the lease ends by its time.

The clipboard is readable by every program of this session. In a remote desktop session it is that of
the client as well: switch off the redirection of the clipboard before.

.PARAMETER OnboardingScript
Full path of DefenderForIdentityV3StandaloneOnboardingScript.cmd, unpacked.

.PARAMETER VaultAddress
Vault's address, such as https://vault.example.com:8200. Windows has to trust its
certificate.

.OUTPUTS
The exit code of the onboarding script, or 1 if it was not run.
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory)] [string] $OnboardingScript,
    [Parameter(Mandatory)] [string] $VaultAddress
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

function Invoke-Vault([string] $Method, [string] $Path, [string] $Body) {
    # Older versions of Windows have to be told to use TLS 1.2.
    [Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12
    $request = @{
        Method = $Method; Uri = "$($VaultAddress.TrimEnd('/'))/v1/$Path"
        Headers = @{ 'X-Vault-Token' = $env:VAULT_TOKEN; 'X-Vault-Request' = 'true' }
        # Without redirects, the token goes to no other host. The engine answers within 20 seconds.
        MaximumRedirection = 0; TimeoutSec = 30
    }
    if ($Body) {
        $request.Body = $Body
    }
    return Invoke-RestMethod @request
}

# Puts the key into the clipboard, and not into its history. No command gets the key as an
# argument: the logging of PowerShell's modules writes down the arguments of commands, but
# not those of methods.
function Set-KeyInClipboard($Secret) {
    Add-Type -AssemblyName System.Windows.Forms
    $data = New-Object System.Windows.Forms.DataObject
    $data.SetText($Secret.data.deployment_access_key)
    $data.SetData('ExcludeClipboardContentFromMonitorProcessing', [byte[]] (0, 0, 0, 0))
    [System.Windows.Forms.Clipboard]::SetDataObject($data, $true)
}

$code = 1
$lease = $null
try {
    if (-not (Test-Path -LiteralPath $OnboardingScript)) {
        throw "There is no $OnboardingScript."
    }
    $secret = Invoke-Vault 'GET' 'mdi/key/sensor-hosts'
    $lease = $secret.lease_id
    Set-KeyInClipboard $secret
    Remove-Variable secret
    Write-Output 'The access key is in the clipboard. Paste it at the prompt of the onboarding script with a right click.'
    & $OnboardingScript
    $code = $LASTEXITCODE
}
catch {
    Write-Error -ErrorAction Continue $_.Exception.Message # has an address in it, but never the key
}
finally {
    if ($lease) {
        [System.Windows.Forms.Clipboard]::Clear()
        try {
            $null = Invoke-Vault 'PUT' 'sys/leases/revoke' (ConvertTo-Json @{ lease_id = $lease })
        }
        catch {
            Write-Warning "The lease $lease could not be ended, and ends by its time: $($_.Exception.Message)"
        }
    }
}
exit $code
